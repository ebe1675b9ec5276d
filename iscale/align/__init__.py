"""Where a capture lies on the mother image: transforms, landmarks, automatic alignment, and proof that it is right."""
