"""Slide reader: a whole slide in; where the model looked, the result in words, the tiles it rests on, downloads."""
