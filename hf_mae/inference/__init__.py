"""Model and images in, arrays out: logits, features, probes, test-time augmentation, saliency."""
