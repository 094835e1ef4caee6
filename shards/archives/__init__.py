"""Official archives: ``download`` plans, ``transfer`` fetches with resume, ``unpack`` extracts safely.

Nothing here knows what the archives mean.
"""
