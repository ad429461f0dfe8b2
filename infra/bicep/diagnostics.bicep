// What the hub did: who connected, and what became of messages and direct methods. All of it
// is in the table AzureDiagnostics. Telemetry, routes and twins are left out, which bridges
// do not use and which cost by the gigabyte.

param hubName string
param workspaceId string

var categories = [
  'Connections'
  'C2DCommands'
  'DirectMethods'
  'DeviceIdentityOperations'
]

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' existing = {
  name: hubName
}

resource settings 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'bridge'
  scope: hub
  properties: {
    workspaceId: workspaceId
    logs: [
      for category in categories: {
        category: category
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}
