terraform {
  required_version = ">= 1.9" # validations that look at more than one variable

  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.68"
    }
  }
}

# The token is in HCLOUD_TOKEN.
provider "hcloud" {}
