"""What a site starts from: documents for clouds and Kubernetes, rendered from one set of versions."""
