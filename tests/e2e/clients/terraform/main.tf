# A key pair and an instance, in a zone and of an image that data sources find.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "endpoint" { type = string }
variable "image" { type = string }
variable "public_key" { type = string }
variable "instance_type" { type = string }
variable "role" { type = string }

provider "aws" {
  skip_region_validation  = true # it knows AWS's regions only
  skip_metadata_api_check = true
  endpoints {
    ec2 = var.endpoint
    iam = var.endpoint
    sts = var.endpoint
  }
}

data "aws_caller_identity" "me" {}

data "aws_availability_zones" "up" { state = "available" }

data "aws_ami" "image" {
  most_recent = true
  owners      = ["self"]
  filter {
    name   = "name"
    values = [var.image]
  }
}

data "aws_ec2_instance_type" "chosen" { instance_type = var.instance_type }

data "aws_subnets" "defaults" {
  filter {
    name   = "default-for-az"
    values = ["true"]
  }
}

data "aws_subnet" "last" {
  availability_zone = reverse(sort(data.aws_availability_zones.up.names))[0]
  default_for_az    = true
}

resource "aws_key_pair" "key" {
  key_name   = "terraform"
  public_key = var.public_key
  tags       = { made-by = "terraform" }
}

resource "aws_instance" "guest" {
  ami           = data.aws_ami.image.id
  instance_type = data.aws_ec2_instance_type.chosen.instance_type
  key_name      = aws_key_pair.key.key_name
  subnet_id     = data.aws_subnet.last.id
  user_data     = "#!/bin/sh\necho \"user data of $(hostname)\" >/root/user-data-ran\n"
  tags          = { Name = "terraform", role = var.role }
}

output "account" { value = data.aws_caller_identity.me.account_id }
output "zones" { value = data.aws_availability_zones.up.names }
output "image" { value = data.aws_ami.image.id }
output "vcpus" { value = data.aws_ec2_instance_type.chosen.default_vcpus }
output "subnets" { value = data.aws_subnets.defaults.ids }
output "subnet" { value = data.aws_subnet.last.id }
output "id" { value = aws_instance.guest.id }
output "type" { value = aws_instance.guest.instance_type }
output "address" { value = aws_instance.guest.public_ip }
output "private_dns" { value = aws_instance.guest.private_dns }
