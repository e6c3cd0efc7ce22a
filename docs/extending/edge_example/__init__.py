"""Parts of edge in a package of their own."""
