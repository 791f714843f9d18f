"""What talks to AWS: the only room that imports boto3, and only when it is called."""
