"""What a running processor tells over HTTP, read only: its page, its state as JSON, its metrics."""
