# Each validation refuses what it is there for, and no other does.
mock_provider "hcloud" {}

variables {
  relay_host     = "relay.example.com"
  relay_url      = "https://downloads.example.com/relay-1.2.3-linux-amd64"
  relay_sha256   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  ssh_keys       = { ops = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLE ops" }
  relay_settings = {}
}

run "a_name_with_dots" {
  command = plan
  variables {
    name = "bridge.example"
  }
  expect_failures = [var.name]
}

run "a_url_for_a_host" {
  command = plan
  variables {
    relay_host = "wss://relay.example.com"
  }
  expect_failures = [var.relay_host]
}

run "half_a_node" {
  command = plan
  variables {
    nodes = 1.5
  }
  expect_failures = [var.nodes]
}

run "eleven_nodes" {
  command = plan
  variables {
    load_balancer = true
    dns_zone      = "example.com"
    nodes         = 11
  }
  expect_failures = [var.nodes]
}

run "six_certificates_a_week" {
  command = plan
  variables {
    nodes = 6
  }
  expect_failures = [var.nodes]
}

run "a_type_that_is_gone" {
  command = plan
  variables {
    server_type = "cx11"
  }
  expect_failures = [var.server_type]
}

run "a_type_of_another_make" {
  command = plan
  variables {
    server_type = "Standard_B2s"
  }
  expect_failures = [var.server_type]
}

run "a_datacenter" {
  command = plan
  variables {
    location = "nbg1-dc3"
  }
  expect_failures = [var.location]
}

run "a_public_network" {
  command = plan
  variables {
    network_cidr = "192.0.2.0/24"
  }
  expect_failures = [var.network_cidr]
}

run "a_small_network" {
  command = plan
  variables {
    network_cidr = "10.20.0.0/28"
  }
  expect_failures = [var.network_cidr]
}

run "no_key" {
  command = plan
  variables {
    ssh_keys = {}
  }
  expect_failures = [var.ssh_keys]
}

run "a_private_key" {
  command = plan
  variables {
    ssh_keys = { ops = "-----BEGIN OPENSSH PRIVATE KEY-----" }
  }
  expect_failures = [var.ssh_keys]
}

run "ssh_for_everybody" {
  command = plan
  variables {
    ssh_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.ssh_cidrs]
}

run "ssh_for_an_address" {
  command = plan
  variables {
    ssh_cidrs = ["192.0.2.7"]
  }
  expect_failures = [var.ssh_cidrs]
}

run "a_program_in_clear" {
  command = plan
  variables {
    relay_url = "http://downloads.example.com/relay"
  }
  expect_failures = [var.relay_url]
}

run "another_hash" {
  command = plan
  variables {
    relay_sha256 = "d41d8cd98f00b204e9800998ecf8427e"
  }
  expect_failures = [var.relay_sha256]
}

run "another_programs_settings" {
  command = plan
  variables {
    relay_settings = { AGENT_DEVICE_ID = "pump-7" }
  }
  expect_failures = [var.relay_settings]
}

run "a_secret_in_metadata" {
  command = plan
  variables {
    relay_settings = { RELAY_HUB_CONNECTION_STRING = "HostName=hub.azure-devices.net" }
  }
  expect_failures = [var.relay_settings]
}

run "a_listener" {
  command = plan
  variables {
    relay_settings = { RELAY_LISTEN = ":443" }
  }
  expect_failures = [var.relay_settings]
}

run "two_lines" {
  command = plan
  variables {
    relay_settings = { RELAY_LOG_LEVEL = "info\nRELAY_AUTH=none" }
  }
  expect_failures = [var.relay_settings]
}

run "azures_identity" {
  command = plan
  variables {
    relay_settings = { RELAY_HUB_CREDENTIAL = "managed-identity" }
  }
  expect_failures = [var.relay_settings]
}

run "no_address" {
  command = plan
  variables {
    acme_email = "ops"
  }
  expect_failures = [var.acme_email]
}

run "another_zone" {
  command = plan
  variables {
    dns_zone = "example.org"
  }
  expect_failures = [var.dns_zone]
}

run "a_balancer_without_a_zone" {
  command = plan
  variables {
    load_balancer = true
  }
  expect_failures = [var.load_balancer]
}

run "a_balancer_of_another_size" {
  command = plan
  variables {
    load_balancer_type = "lb1"
  }
  expect_failures = [var.load_balancer_type]
}
