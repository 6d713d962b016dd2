"""Between text and arrays of tokens: tokenizer, chat template, stop strings and packing."""
