"""What differs between two versions' answers: field by field, row by row, graded, with the noise taken out."""
