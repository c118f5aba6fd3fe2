// What the models gave when the package was made: stands for a runtime where none is.
import Foundation

struct RecordedTensor {
    let dtype: String
    let shape: [Int]
    let bytes: Data
}

/// The outputs of one model, a run after another.
final class RecordedModel {
    private struct Entry: Decodable {
        let name: String
        let file: String
        let dtype: String
        let shape: [Int]
    }

    private struct Case: Decodable {
        let outputs: [Entry]
    }

    private struct Record: Decodable {
        let cases: [Case]
    }

    private var runs: [[String: RecordedTensor]] = []
    private var turn = 0

    /// - Parameter path: of the model; of several models each lies in a folder of its name.
    init(_ path: String) throws {
        let folder = URL(fileURLWithPath: ProcessInfo.processInfo.environment["EDGEWRIGHT_RECORDED"] ?? "")
        let model = URL(fileURLWithPath: path).deletingLastPathComponent().lastPathComponent
        let data = try Data(contentsOf: folder.appendingPathComponent("golden.json"))
        for one in try JSONDecoder().decode(Record.self, from: data).cases {
            let own = one.outputs.filter { $0.name.hasPrefix("\(model).") }
            let entries = own.isEmpty ? one.outputs : own
            let count = entries.first?.shape.first ?? 0
            var made = Array(repeating: [String: RecordedTensor](), count: count)
            for entry in entries {
                let name = own.isEmpty ? entry.name : String(entry.name.dropFirst(model.count + 1))
                let all = try Data(contentsOf: folder.appendingPathComponent(entry.file))
                let size = all.count / count
                for turn in 0..<count {
                    let bytes = all.subdata(in: (turn * size)..<((turn + 1) * size))
                    let shape = Array(entry.shape.dropFirst())
                    made[turn][name] = RecordedTensor(dtype: entry.dtype, shape: shape, bytes: bytes)
                }
            }
            runs += made
        }
    }

    func next() -> [String: RecordedTensor] {
        defer { turn += 1 }
        return runs[turn]
    }
}
