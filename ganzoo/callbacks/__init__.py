"""What watches a training without being part of it."""
