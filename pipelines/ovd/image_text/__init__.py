"""Image–text models behind one interface, prompts, and vocabularies of names."""
