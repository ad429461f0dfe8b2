# With load_balancer: TLS ends here, with a certificate that Hetzner makes and renews, and
# requests go to nodes in the private network that say they are ready.
resource "hcloud_managed_certificate" "relay" {
  count = var.load_balancer ? 1 : 0

  name         = var.name
  domain_names = [var.relay_host]
}

resource "hcloud_load_balancer" "relay" {
  count = var.load_balancer ? 1 : 0

  name               = var.name
  load_balancer_type = var.load_balancer_type
  location           = var.location

  algorithm {
    type = "least_connections" # bridges live long
  }
}

resource "hcloud_load_balancer_network" "relay" {
  count = var.load_balancer ? 1 : 0

  load_balancer_id = hcloud_load_balancer.relay[0].id
  network_id       = hcloud_network.relay.id
  ip               = local.balancer_ip

  depends_on = [hcloud_network_subnet.relay]
}

resource "hcloud_load_balancer_target" "node" {
  count = var.load_balancer ? var.nodes : 0

  type             = "server"
  load_balancer_id = hcloud_load_balancer.relay[0].id
  server_id        = hcloud_server.node[count.index].id
  use_private_ip   = true

  depends_on = [hcloud_load_balancer_network.relay]
}

resource "hcloud_load_balancer_service" "relay" {
  count = var.load_balancer ? 1 : 0

  load_balancer_id = hcloud_load_balancer.relay[0].id
  protocol         = "https"
  listen_port      = 443
  destination_port = local.public_port

  http {
    certificates  = [hcloud_managed_certificate.relay[0].id]
    redirect_http = true
    timeout_idle  = 60 # each side of a bridge is pinged every 15 s
  }

  health_check {
    protocol = "http"
    port     = local.admin_port
    interval = 5
    timeout  = 3
    retries  = 2

    http {
      path         = "/readyz" # 503 while it drains
      status_codes = ["200"]
    }
  }
}
