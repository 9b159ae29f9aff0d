"""Images: readers, decoding, streams, and augmentation on the device."""
