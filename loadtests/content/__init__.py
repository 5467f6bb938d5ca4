"""What requests are filled with: texts, code and images, the same for the same seed, no two alike."""
