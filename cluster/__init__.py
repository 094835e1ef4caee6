"""Ray and MLflow: what is distributed and tracked."""
