"""Dataset archives: ``download`` plans, ``transfer`` fetches and resumes, ``unpack`` extracts safely.

Nothing here reads captions or images.
"""
