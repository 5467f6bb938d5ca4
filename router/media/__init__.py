"""Images and PDFs: formats, fetching, rendering in separate processes."""
