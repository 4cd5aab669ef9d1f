"""What came of an adaptation without labels: images kept out of it, a teacher selected, words, images to label."""
