// Package sas is IoT Hub's shared access signatures and the connection strings
// that hold their keys.
//
// # Connection strings
//
// Name=value pairs with ; between, in any order, as the Azure portal shows them.
// A value may hold =, as base64 does:
//
//	HostName=h;SharedAccessKeyName=policy;SharedAccessKey=key      a service
//	HostName=h;DeviceId=d;SharedAccessKey=key                      a device
//	HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=key           a module
//	HostName=h;DeviceId=d;x509=true                                a device with a certificate
//
// GatewayHostName is where to dial instead of HostName, which stays the name in
// signatures. Names are matched without case, as Microsoft's SDKs do.
//
// # Tokens
//
//	SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}
//
// in any order; skn only with a policy's key. resource and signature are
// percent-encoded, expiry is Unix seconds, and
//
//	signature = base64(HMAC-SHA256(base64decode(key), resource + "\n" + expiry))
//
// over the resource as it stands in the token, still encoded. Encoders differ
// (%2f and %2F, @ and %40), so whoever decodes and encodes again refuses good
// tokens. A token is good for its resource and everything below it, by whole
// segments: one for h/devices/pump is none for h/devices/pump-7.
//
// Source: Microsoft Learn, "Control access to IoT Hub with shared access
// signatures".
package sas
