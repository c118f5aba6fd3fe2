// What the package uses of ONNX Runtime's Swift bindings, declared for type checking where they are not.
import Foundation

public enum ORTLoggingLevel: Int32 { case verbose, info, warning, error, fatal }
public enum ORTTensorElementDataType: Int32 { case undefined, float, int8, uInt8, int32, uInt32, int64, uInt64, string }
public final class ORTEnv: @unchecked Sendable {
    public init(loggingLevel: ORTLoggingLevel) throws {}
}
public final class ORTSessionOptions {
    public init() throws {}
    public func setIntraOpNumThreads(_ threads: Int32) throws {}
}
public final class ORTRunOptions {}
public final class ORTValue {
    public init(tensorData: NSMutableData, elementType: ORTTensorElementDataType, shape: [NSNumber]) throws {}
    public func tensorData() throws -> NSMutableData { NSMutableData() }
}
public final class ORTSession {
    public init(env: ORTEnv, modelPath: String, sessionOptions: ORTSessionOptions?) throws {}
    public func run(
        withInputs inputs: [String: ORTValue], outputNames: Set<String>, runOptions: ORTRunOptions?
    ) throws -> [String: ORTValue] { [:] }
}
