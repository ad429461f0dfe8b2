"""The few names of azure-iot-device that the sample uses, without a hub."""


class MethodResponse:
    def __init__(self, request, status, payload):
        self.request_id, self.name, self.status, self.payload = request.request_id, request.name, status, payload

    @staticmethod
    def create_from_method_request(method_request, status, payload=None):
        return MethodResponse(method_request, status, payload)
