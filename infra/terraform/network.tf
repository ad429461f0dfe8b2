# Nodes pass bridges on to each other here. Hetzner's firewalls look at public addresses
# only, so what is in this network can reach every port in it: keep it for the relay.
resource "hcloud_network" "relay" {
  name     = var.name
  ip_range = var.network_cidr
}

resource "hcloud_network_subnet" "relay" {
  network_id   = hcloud_network.relay.id
  type         = "cloud"
  network_zone = local.network_zone
  ip_range     = var.network_cidr
}

resource "hcloud_firewall" "relay" {
  name = var.name

  # 80 is for the certificate authority, and sends browsers on to 443. Behind a load
  # balancer nothing is open.
  dynamic "rule" {
    for_each = var.load_balancer ? [] : ["80", "443"]

    content {
      description = rule.value == "443" ? "bridges" : "proof for the certificate authority"
      direction   = "in"
      protocol    = "tcp"
      port        = rule.value
      source_ips  = ["0.0.0.0/0", "::/0"]
    }
  }

  dynamic "rule" {
    for_each = length(var.ssh_cidrs) > 0 ? ["22"] : []

    content {
      description = "operators"
      direction   = "in"
      protocol    = "tcp"
      port        = rule.value
      source_ips  = var.ssh_cidrs
    }
  }

  # Path MTU discovery.
  rule {
    description = "errors of the network"
    direction   = "in"
    protocol    = "icmp"
    source_ips  = ["0.0.0.0/0", "::/0"]
  }
}
