"""The commands of ``xee-tf``: typed functions that call public ones. ``xee_tf_cli`` lists and runs them."""
