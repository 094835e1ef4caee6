"""Starter manifests for clouds and Kubernetes, rendered from one set of versions.

Reading order: ``settings``, ``render``, ``templates``. Nothing here contacts a cloud.
"""
