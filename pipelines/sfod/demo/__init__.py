"""Demo data of adaptation: tiles of tree crowns under rendered shifts."""
