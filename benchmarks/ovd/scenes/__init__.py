"""The study of the open-vocabulary ladder on composed scenes."""
