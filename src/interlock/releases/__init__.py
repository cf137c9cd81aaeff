"""New versions that come to all users step by step under a judge, and go back by themselves."""
