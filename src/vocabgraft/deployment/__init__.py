"""From a finished Hugging Face folder to something that answers: GGUF export, quantisation, serving, agreement."""
