"""How fast and how big, side by side with what else one could run; see README.md."""
