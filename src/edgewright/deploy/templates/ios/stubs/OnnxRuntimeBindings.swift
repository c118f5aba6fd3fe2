// What the package uses of ONNX Runtime's bindings, declared for type checking where they are not; runs are played back.
import Foundation

public enum ORTLoggingLevel: Int32 { case verbose, info, warning, error, fatal }
public enum ORTTensorElementDataType: Int32 { case undefined, float, int8, uInt8, int32, uInt32, int64, uInt64, string }

public final class ORTEnv {
    public init(loggingLevel: ORTLoggingLevel) throws {}
}

public final class ORTSessionOptions {
    public init() throws {}
    public func setIntraOpNumThreads(_ threads: Int32) throws {}
}

public final class ORTRunOptions {}

public final class ORTValue {
    private let data: NSMutableData

    public init(tensorData: NSMutableData, elementType: ORTTensorElementDataType, shape: [NSNumber]) throws {
        data = tensorData
    }

    public func tensorData() throws -> NSMutableData { data }
}

public final class ORTSession {
    private let model: RecordedModel

    public init(env: ORTEnv, modelPath: String, sessionOptions: ORTSessionOptions?) throws {
        model = try RecordedModel(modelPath)
    }

    public func run(
        withInputs inputs: [String: ORTValue], outputNames: Set<String>, runOptions: ORTRunOptions?
    ) throws -> [String: ORTValue] {
        try model.next().filter { outputNames.contains($0.key) }.mapValues { tensor in
            let shape = tensor.shape.map { NSNumber(value: $0) }
            return try ORTValue(tensorData: NSMutableData(data: tensor.bytes), elementType: .undefined, shape: shape)
        }
    }
}
