"""What tests share: servers, clusters, tiny models and data."""
