"""Labels of training pairs that models which never saw their prompts doubt."""
