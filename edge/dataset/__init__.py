"""Files of rows: finding them, reading them from any place, following them, replaying them."""
