"""The sector of a frame: found by what moves, remembered by machine and size; text beside it is masked."""
