"""The consumer as an AWS Lambda function."""
