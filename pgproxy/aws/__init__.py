"""
AWS: secrets and their rotation, IAM on both legs, CloudWatch. The only room that imports boto3.

Nothing of it is imported unless the configuration has an [aws] table, and boto3 not before it is used.

- What decides, and imports the standard library and attrs only: `rotation`, `shelf`, `arn`, `rds_token`,
  `caller_identity`, `web_identity`, `metrics`.
- `rds` asks the RDS API where the hosts of a target are.
- `client` is what is asked of AWS, by functions that block; `threads` runs them.
- `secrets`, `tokens`, `iam`, `cloudwatch` perform; `service` wires them, as a `link.vault.Vault`.
"""
