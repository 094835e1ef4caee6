"""Servers, clusters, tiny models and data that several tests share."""
