// What a relay may do at the hub, and who has this role: nothing built in is as little.
// IoT Hub Data Contributor, the least built-in role that can call a direct method or send
// a message, may also delete devices and write twins.

param hubName string

@description('Object IDs of the identities that relays sign in with.')
param principalIds array

@description('Also let them read what became of each message (RELAY_HUB_FEEDBACK).')
param feedback bool

var sends = [
  'Microsoft.Devices/IotHubs/directMethods/invoke/action'
  'Microsoft.Devices/IotHubs/cloudToDeviceMessages/send/action'
]
var reads = ['Microsoft.Devices/IotHubs/cloudToDeviceMessages/feedback/action']

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' existing = {
  name: hubName
}

resource role 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(hub.id, 'relay')
  properties: {
    roleName: 'Bridge relay at ${hubName}' // has to be the only one of its name in the directory
    description: 'Tells devices of the hub to dial a relay back. Cannot read, change or delete devices.'
    type: 'CustomRole'
    permissions: [
      {
        actions: []
        notActions: []
        dataActions: feedback ? concat(sends, reads) : sends
        notDataActions: []
      }
    ]
    assignableScopes: [resourceGroup().id] // the narrowest that a role can be made for
  }
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for principalId in principalIds: {
    name: guid(hub.id, principalId, role.id)
    scope: hub // the narrowest there is: no device has a scope of its own
    properties: {
      roleDefinitionId: role.id
      principalId: principalId
      principalType: 'ServicePrincipal'
    }
  }
]

output roleDefinitionId string = role.id
