output "relay_url" {
  description = "BRIDGE_RELAY of requesters; its host belongs in AGENT_RELAY_HOSTS of devices."
  value       = "wss://${var.relay_host}"
}

output "dns_records" {
  description = "Records of relay_host. They are made already if dns_zone is set."
  value       = local.records
}

output "node_addresses" {
  description = "Public address of each node, for operators."
  value       = hcloud_primary_ip.ipv4[*].ip_address
}

output "deliver_secrets" {
  description = "Commands that give each node the files of the folder secrets; nodes start when they have them."
  value       = [for ip in hcloud_primary_ip.ipv4[*].ip_address : "tar -C secrets -c . | ssh root@${ip} relay-secrets"]
}
