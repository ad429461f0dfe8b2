// The IoT hub: the one message that reaches a device goes through it.

param location string
param tags object

@minLength(3)
@maxLength(50)
param name string

@allowed(['F1', 'S1', 'S2', 'S3'])
param tier string

@minValue(1)
@maxValue(200)
param units int

@allowed(['1.2'])
param minTlsVersion string

@description('Accept signatures made with keys of the hub\'s policies. Devices keep their own keys either way.')
param allowKeys bool

@allowed(['Enabled', 'Disabled'])
param publicNetworkAccess string

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: tier
    capacity: units
  }
  properties: {
    minTlsVersion: minTlsVersion
    disableLocalAuth: !allowKeys
    publicNetworkAccess: publicNetworkAccess
    // The service wants this on every update. Bridges send nothing to it.
    eventHubEndpoints: {
      events: {
        partitionCount: 2
        retentionTimeInDays: 1
      }
    }
    // A signal carries its own expiry of seconds, so these only bound what others send.
    cloudToDevice: {
      defaultTtlAsIso8601: 'PT1H'
      maxDeliveryCount: 10
      feedback: {
        lockDurationAsIso8601: 'PT1M'
        ttlAsIso8601: 'PT1H'
        maxDeliveryCount: 10
      }
    }
  }
}

output id string = hub.id
output name string = hub.name
output hostName string = hub.properties.hostName
