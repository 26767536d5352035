"""climatestream on AWS: what a deployment is made of, with the AWS CDK."""
