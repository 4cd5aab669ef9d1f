"""Study of adaptation with ten classes, on composed scenes."""
