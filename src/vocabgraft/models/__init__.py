"""Where a base model comes from: a GGUF file turned into a Hugging Face folder, a random model of a real shape."""
