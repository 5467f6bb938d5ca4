"""What requests are filled with: texts, code and images, reproducible from a seed."""
