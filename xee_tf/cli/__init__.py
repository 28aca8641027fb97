"""The commands of ``xee-tf``: typed functions over public ones, which ``xee_tf_cli`` names and runs."""
