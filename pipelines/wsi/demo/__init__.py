"""How the demo's slides are made from the pixels of one scanned region."""
