"""`http.request`: HTTP services of others, called as interlock.yaml declares them."""
