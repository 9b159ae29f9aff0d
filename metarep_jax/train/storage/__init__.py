"""What a training leaves on disk: its folder, checkpoints, and trees of arrays, each whole or not at all."""
