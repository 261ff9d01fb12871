"""Reading any format, and tables put into words by prompt templates."""
